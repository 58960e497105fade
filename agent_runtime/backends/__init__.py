"""What runs a turn once it has been placed: today the emulated rack."""
