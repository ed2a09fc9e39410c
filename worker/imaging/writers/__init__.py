"""Writers: each makes the file of a result of one format from its rows."""
