"""The rack as people watch it: one stream of messages, live or from a recording."""
