"""The journal: what we did, in SQLite. The only SQL of ncaasd, and one thread (the engine) writes it.

WAL with synchronous=FULL, both read back: a committed row survives a power cut (with NORMAL it may not). Every write
happens inside `with journal.transaction():`; transactions nest by joining the outer one, so that the engine can commit
many records at once. `base` has the statements and transactions, `opening` what makes a file safe to use, `schema` its
tables, `rows` the types of their rows and answers; `backups` makes its copies, and `pruning` finds the events that are too old to
be kept; each of the other modules has the tables of one thing.
"""

from ncaasd.adapters.journal.journal import Journal
from ncaasd.adapters.journal.opening import open_journal, open_reader

__all__ = ["Journal", "open_journal", "open_reader"]
