"""The rack in a terminal: what the messages of a rack view add up to, drawn as lines of text."""
