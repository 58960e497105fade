"""What people read after a run: the terminal table and the self-contained HTML page."""
