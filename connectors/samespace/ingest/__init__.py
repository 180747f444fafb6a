"""Reading documents: from files (``reading``), and a corpus that is at hand (``corpus``)."""
