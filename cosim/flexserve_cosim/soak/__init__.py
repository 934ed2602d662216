"""Soak campaign: the filter alone under long random traffic and management, held to the golden model step by step."""
