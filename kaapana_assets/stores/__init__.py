"""The stores of all data: PACS, metadata index, object store, run directories and shelf."""
