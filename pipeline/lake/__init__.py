"""Storage: tables, artefacts, run records, and the lock that lets one job write at a time."""
