"""The query language of the metadata index: a typed tree and its readable form.

``parse`` makes the tree from text and ``str`` makes text from the tree; each index implementation
translates the tree for its engine. Nothing here depends on an engine.
"""

from kaapana_assets.stores.query.hints import unknown_fields
from kaapana_assets.stores.query.parser import parse
from kaapana_assets.stores.query.tree import All, And, Exists, Not, Or, Prefix, Query, Range, Term, Text

__all__ = ["All", "And", "Exists", "Not", "Or", "Prefix", "Query", "Range", "Term", "Text", "parse", "unknown_fields"]
