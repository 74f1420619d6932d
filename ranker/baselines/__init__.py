"""What the HMAT is compared with."""
