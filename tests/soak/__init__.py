"""The gateway in a process of its own, for as long as it takes to find what leaks."""
