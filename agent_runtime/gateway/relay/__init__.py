"""The endpoint before real engines: requests pass, and sessions are scheduled."""
