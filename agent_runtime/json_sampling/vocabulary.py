"""The words that made-up text consists of; each is one token of the approximate tokeniser."""

# fmt: off
WORDS = (
    "a", "again", "agent", "all", "an", "and", "asks", "at", "both", "calls", "checks", "clear",
    "code", "compares", "data", "down", "drops", "edits", "facts", "fails", "file", "finds", "for",
    "green", "issue", "it", "keeps", "learned", "lines", "logs", "looks", "merges", "more", "next",
    "notes", "old", "one", "only", "opens", "parser", "plans", "reads", "real", "results", "return",
    "runs", "saves", "short", "so", "steps", "test", "that", "the", "then", "time", "tools", "two",
    "until", "waits", "what", "when", "which", "with", "work", "writes",
)
# fmt: on
