"""What sentence vectors are looked through for: the nearest of them, pairs that mean the same, and communities.

All of it is exact, and compares block by block, so that a million vectors take no more memory than a thousand.
"""

from minisbert.search.communities import community_detection
from minisbert.search.paraphrases import paraphrase_mining, paraphrase_mining_embeddings
from minisbert.search.semantic import semantic_search

__all__ = ["community_detection", "paraphrase_mining", "paraphrase_mining_embeddings", "semantic_search"]
