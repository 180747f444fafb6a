"""What a store's or an application's own tests can use: contract suites, backends, a server.

``VectorStoreContract`` and ``AsyncVectorStoreContract`` are subclassed with one fixture,
``harness``, ``EmbeddingBackendContract`` and ``AsyncEmbeddingBackendContract`` with one named ``make``;
they need ``pip install "samespace[testing]"``. Failed assertions in them are explained
if ``conftest.py`` calls ``pytest.register_assert_rewrite("samespace.testing")``; the async suite asks for
pytest-asyncio's ``asyncio_mode = "auto"``. ``JinaServer`` stands for Jina's embedding API.
"""
