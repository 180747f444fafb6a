"""Sort messages into topics that no classifier was trained for: the label nearest to each.

The task ``classification`` is part of the space, and so of every request. Labels are embedded as they
are: with this task they need not be rephrased as sentences.
Needs ``JINA_API_KEY`` and scikit-learn.
"""

from sklearn.neighbors import KNeighborsClassifier

from samespace import JinaAPIBackend

LABELS = ["billing", "delivery", "repair"]
MESSAGES = [
    "The delivery was left with a neighbour I have never met.",
    "There is an amount in my billing overview that I cannot explain.",
    "After its second repair the kettle leaks again.",
    "Can the delivery come after six in the evening?",
]

with JinaAPIBackend("jina-embeddings-v3", task="classification") as backend:
    labels = backend.embed_documents(LABELS)
    messages = backend.embed_documents(MESSAGES)

nearest = KNeighborsClassifier(n_neighbors=1, metric="cosine").fit(labels, LABELS)
for label, message in zip(nearest.predict(messages), MESSAGES, strict=True):
    print(f"{label:<10}{message}")
