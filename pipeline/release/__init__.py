"""Which IDs readers see, and the gates that new ones pass."""
