"""Find questions that were asked before in other words.

The task ``text-matching`` is for texts of one kind that are compared with each other; it is part of
the space, and so of every request. How near is near enough depends on the model and on your texts:
try it on some pairs that you know. Needs ``JINA_API_KEY`` and scikit-learn.
"""

from sklearn.neighbors import NearestNeighbors

from samespace import JinaAPIBackend

NEAR = 0.4
"""Cosine distance up to which two questions count as one."""
QUESTIONS = [
    "How do I reset the password of my account?",
    "Which countries do you ship furniture to?",
    "How can I reset my account password?",
    "Is there a discount for students?",
    "To which countries do you ship your furniture?",
]

with JinaAPIBackend("jina-embeddings-v3", task="text-matching") as backend:
    vectors = backend.embed_documents(QUESTIONS)

index = NearestNeighbors(radius=NEAR, metric="cosine").fit(vectors)
distances, neighbours = index.radius_neighbors(vectors)
for first, (away, others) in enumerate(zip(distances, neighbours, strict=True)):
    for distance, second in zip(away, others, strict=True):
        if first < second:
            print(f"{1 - distance:.2f}  {QUESTIONS[first]}  =  {QUESTIONS[second]}")
