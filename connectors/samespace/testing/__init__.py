"""What a store's or an application's own tests can use: contract suites and test backends.

Needs pytest. ``VectorStoreContract`` and ``AsyncVectorStoreContract`` are subclassed with one
fixture, ``harness``.
"""
