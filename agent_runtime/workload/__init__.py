"""Agent sessions to run: readers of recorded traces and generators from published distributions."""
