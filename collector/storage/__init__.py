"""Queues and states that survive a restart, in files. The extension ``file_storage`` serves them to other components.

``files``      FileStorage: a directory that one process owns, with its queues and states
``queue``      FileQueue: what is written when, and together with what
``commit``     what becomes durable together
``segment``    Segment: one file of a queue
``records``    the format of a segment
``recovery``   how a queue is opened after any kind of end
``damage``     what is done about damaged files
``state``      FileStateStore: one value in one file
``inspect``    looks into the queues of a directory
``directory``  names and the lock
``worker``     a thread for blocking operations
"""

from collector.storage.files import FileStorage, FileStorageSettings

__all__ = ["FileStorage", "FileStorageSettings"]
