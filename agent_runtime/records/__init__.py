"""Values that outlive the process: in a file of one gateway's, or in a Redis that several share."""

from agent_runtime.records.places import open_records
from agent_runtime.records.records import Records

__all__ = ["Records", "open_records"]
