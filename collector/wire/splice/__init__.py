"""Requests rewritten in one pass: runs of bytes are cut, replaced or inserted, and the index moves along.

``rewrite``     patches applied to a request; rows selected, pruned and joined
``attributes``  a log of attribute changes turned into patches
``values``      what patches insert, and single values read
"""
