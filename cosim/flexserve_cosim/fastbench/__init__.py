"""The transaction-level machine held beside the RTL: the same jobs, their figures, and how long they take."""
