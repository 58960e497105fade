"""Sessions in Redis: shared by several programs, each session one program's at a time."""

from agent_runtime.sdk.redis_journal.journal import RedisJournal

__all__ = ["RedisJournal"]
