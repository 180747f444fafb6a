"""Documents from files (``reading``) into a store (``storing``), and a corpus that is at hand."""
