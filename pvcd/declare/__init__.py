"""What plugins declare, as plain data, and what a declaration's functions are given."""
