"""Any model that the sentence-transformers library runs, on this machine."""
