"""Where data stays: PACS, metadata index, object store, run directories and the shelf."""
