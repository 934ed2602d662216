"""The NPU bench: how long jobs take on the phone's RTL, from doorbell to interrupt, beside what the array allows."""
