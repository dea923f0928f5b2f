"""Rewrites requests in one pass: runs of bytes are cut, replaced or inserted, and the index moves along.

``rewrite``        patches applied to a request, and whole rows removed from it
``relocate``       rows of the index selected, joined, and moved to another request
``attribute_log``  a log of attribute changes and its outcome for each row
``attributes``     that outcome written as patches
``values``         the encoding of what patches insert, and single values read
"""
