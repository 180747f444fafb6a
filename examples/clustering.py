"""Find which notes belong together, without saying what there is to find.

The task ``separation`` is trained to keep groups apart; it is part of the space, and so of every
request. Needs ``JINA_API_KEY`` and scikit-learn.
"""

from sklearn.cluster import AgglomerativeClustering

from samespace import JinaAPIBackend

NOTES = [
    "Sourdough bread needs flour, water and a night of rest.",
    "The night train to Vienna leaves from platform nine.",
    "Rye flour makes the bread darker and the dough sticky.",
    "A bicycle takes a ticket of its own on the train to Vienna.",
    "Knead the dough until the bread flour holds together.",
    "On the train every ticket is checked before Vienna.",
]

with JinaAPIBackend("jina-embeddings-v3", task="separation") as backend:
    vectors = backend.embed_documents(NOTES)

clustering = AgglomerativeClustering(n_clusters=2, metric="cosine", linkage="average")
groups = clustering.fit_predict(vectors)
for group, note in sorted(zip(groups.tolist(), NOTES, strict=True)):
    print(f"{group}  {note}")
