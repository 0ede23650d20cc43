"""A seeded generator of search queries for a shop: documents with features, and labels 0 (useless) to 4 (perfect).

The world behind it: a query has an intent (how much it asks for new things, for cheap things, for a brand), a document has
hidden qualities (does it match, is it good, is it known). Features are noisy views of those, some sparse, some redundant,
some no use at all. A label is the hidden benefit of the document for the query, with interactions (a discount only matters to
those who look at prices; a good product that does not match is worth nothing) and with the noise of human judges.

Every feature is rounded to three significant digits before anything is trained on it, so that the JSON file with the test
queries holds exactly the numbers that the models saw.
"""

from dataclasses import dataclass

import numpy as np

FEATURES = [
    # How well the text matches.
    "bm25_title", "bm25_body", "bm25_reviews", "tfidf_title", "title_coverage", "body_coverage", "exact_phrase",
    "term_proximity", "embedding_cosine", "category_match", "language_match",
    # How known and how liked it is.
    "log_views", "log_sales", "click_rate_7d", "click_rate_30d", "cart_rate", "return_rate", "log_reviews", "review_mean",
    "review_spread",
    # How new it is.
    "log_age_days", "freshness", "is_new",
    # What it costs, and when it comes.
    "log_price", "price_to_category", "discount", "in_stock", "shipping_days", "seller_rating",
    # Who asks, and what for.
    "query_terms", "log_query_frequency", "fresh_intent", "price_intent", "brand_affinity", "bought_before",
    # How it is presented.
    "title_length", "image_count", "has_video",
    # No use, as some features of every real model.
    "warehouse", "catalog_batch",
]

ADJECTIVES = ["waterproof", "lightweight", "wireless", "vintage", "organic", "foldable", "ergonomic", "thermal", "compact",
              "refurbished", "handmade", "adjustable", "rechargeable", "quiet", "large", "cheap"]
PURPOSES = ["hiking", "kitchen", "office", "travel", "gaming", "garden", "winter", "kids", "camping", "running", "studio",
            "beach"]
THINGS = ["boots", "jacket", "lamp", "backpack", "headphones", "chair", "tent", "kettle", "monitor", "keyboard", "bottle",
          "desk", "bike", "speaker", "knife", "blanket", "camera", "drill", "sofa", "watch"]

LABEL_SHARES = [0.50, 0.24, 0.15, 0.08, 0.03]
"""How many of the documents get label 0, 1, 2, 3, 4."""


@dataclass
class Queries:
    """Queries with their documents, one row a document; `sizes[i]` rows belong to query i."""

    texts: list[str]
    sizes: np.ndarray
    features: np.ndarray
    labels: np.ndarray

    def spans(self):
        """(start, end) of each query's rows."""
        ends = np.cumsum(self.sizes)
        return list(zip(ends - self.sizes, ends))


def generate(seed: int, count: int) -> Queries:
    """Makes `count` queries of 10 to 20 documents. The same seed gives the same queries."""
    rng = np.random.default_rng(seed)
    texts = [query_text(rng) for _ in range(count)]
    sizes = rng.integers(10, 21, size=count)
    rows, benefits = [], []
    for text, size in zip(texts, sizes):
        features, benefit = documents(rng, text, int(size))
        rows.append(features)
        benefits.append(benefit)
    features = round_to_three_digits(np.vstack(rows)).astype(np.float32)
    return Queries(texts, sizes, features, labels_of(np.concatenate(benefits)))


def query_text(rng) -> str:
    words = [rng.choice(THINGS)]
    if rng.random() < 0.7:
        words.insert(0, rng.choice(PURPOSES))
    if rng.random() < 0.6:
        words.insert(0, rng.choice(ADJECTIVES))
    return " ".join(words)


def documents(rng, text: str, size: int):
    """The features of one query's documents, and the hidden benefit of each."""
    def normal(spread=1.0):
        return rng.normal(0.0, spread, size)

    def chance(probability):
        return (rng.random(size) < probability).astype(float)

    fresh_intent, price_intent, brand_intent = rng.beta(0.7, 1.6), rng.beta(0.8, 1.2), rng.beta(0.5, 2.0)
    match, quality, fame = normal(), normal(), normal()
    age_days = np.exp(rng.normal(4.5, 1.4, size))
    freshness = np.exp(-age_days / 60.0)
    price_ratio = np.exp(rng.normal(0.0, 0.45, size))
    discount = chance(0.3) * rng.uniform(0.05, 0.6, size)
    category_match, language_match = chance(sigmoid(1.2 + 1.4 * match)), chance(0.93)
    in_stock, brand = chance(0.88), chance(0.15) * rng.uniform(0.2, 1.0, size)
    bought, exact = chance(0.06), chance(sigmoid(-2.4 + 1.5 * match))
    shipping_days = 1.0 + rng.poisson(2.5, size) + (1.0 - in_stock) * rng.integers(3, 15, size)
    reviews = np.floor(np.exp(np.clip(1.6 + 1.2 * fame + normal(0.8), 0.0, 9.0)) - 1.0)
    has_reviews = (reviews > 0).astype(float)

    benefit = (
        1.25 * match
        + 0.85 * quality * sigmoid(2.0 * match)
        + 0.30 * fame
        + 2.1 * fresh_intent * (freshness - 0.3)
        - 1.5 * price_intent * np.log(price_ratio)
        + 2.2 * price_intent * discount
        + 1.8 * brand_intent * brand
        + 0.9 * bought * (1.0 - fresh_intent)
        + 0.7 * exact
        - 1.1 * (1.0 - category_match)
        - 1.6 * (1.0 - language_match)
        - 0.8 * (1.0 - in_stock)
        - 0.05 * shipping_days
        + normal(1.2)
    )
    clicks = sigmoid(-2.6 + 0.5 * match + 0.5 * quality + 0.35 * fame)
    columns = {
        "bm25_title": np.maximum(0.0, 9.0 + 4.0 * match + normal(2.6)),
        "bm25_body": np.maximum(0.0, 14.0 + 4.5 * match + normal(4.5)),
        "bm25_reviews": has_reviews * np.maximum(0.0, 4.0 + 2.0 * match + normal(3.0)),
        "tfidf_title": np.maximum(0.0, 0.45 + 0.16 * match + normal(0.14)),
        "title_coverage": np.round(np.clip(0.6 + 0.22 * match + normal(0.18), 0.0, 1.0) * 4) / 4,
        "body_coverage": np.round(np.clip(0.75 + 0.15 * match + normal(0.2), 0.0, 1.0) * 4) / 4,
        "exact_phrase": exact,
        "term_proximity": np.clip(0.5 + 0.15 * match + normal(0.25), 0.0, 1.0),
        "embedding_cosine": np.clip(0.55 + 0.12 * match + 0.02 * quality + normal(0.08), -1.0, 1.0),
        "category_match": category_match,
        "language_match": language_match,
        "log_views": np.maximum(0.0, 5.0 + 1.5 * fame + 0.3 * np.log(age_days) + normal(0.7)),
        "log_sales": np.maximum(0.0, 2.0 + 1.2 * fame + 0.6 * quality + normal(0.9)),
        "click_rate_7d": chance(0.7) * np.clip(clicks + normal(0.05), 0.0, 1.0),
        "click_rate_30d": np.clip(clicks + normal(0.025), 0.0, 1.0),
        "cart_rate": np.clip(0.06 + 0.025 * quality + 0.01 * match + normal(0.02), 0.0, 1.0),
        "return_rate": np.clip(0.08 - 0.03 * quality + normal(0.03), 0.0, 1.0),
        "log_reviews": np.log1p(reviews),
        "review_mean": has_reviews * np.clip(3.9 + 0.55 * quality + normal(0.35), 1.0, 5.0),
        "review_spread": has_reviews * np.clip(0.9 - 0.1 * quality + normal(0.3), 0.0, 2.0),
        "log_age_days": np.log1p(age_days),
        "freshness": freshness,
        "is_new": (age_days < 30.0).astype(float),
        "log_price": 3.2 + np.log(price_ratio) + rng.normal(0.0, 0.9),
        "price_to_category": price_ratio,
        "discount": discount,
        "in_stock": in_stock,
        "shipping_days": shipping_days,
        "seller_rating": np.clip(4.1 + 0.2 * quality + normal(0.5), 1.0, 5.0),
        "query_terms": np.full(size, float(len(text.split()))),
        "log_query_frequency": np.full(size, rng.gamma(2.0, 1.6)),
        "fresh_intent": np.full(size, fresh_intent),
        "price_intent": np.full(size, price_intent),
        "brand_affinity": brand * brand_intent,
        "bought_before": bought,
        "title_length": np.maximum(2.0, np.round(9.0 + normal(3.0))),
        "image_count": rng.poisson(4.0, size).astype(float),
        "has_video": chance(0.12),
        "warehouse": rng.integers(1, 40, size).astype(float),
        "catalog_batch": rng.integers(1, 1000, size).astype(float),
    }
    return np.column_stack([columns[name] for name in FEATURES]), benefit


def labels_of(benefits: np.ndarray) -> np.ndarray:
    """Cuts the hidden benefit into labels 0..4, with the shares of LABEL_SHARES."""
    edges = np.quantile(benefits, np.cumsum(LABEL_SHARES)[:-1])
    return np.searchsorted(edges, benefits).astype(np.int64)


def sigmoid(x):
    return 1.0 / (1.0 + np.exp(-x))


def round_to_three_digits(values: np.ndarray) -> np.ndarray:
    """Each value rounded to three significant digits, zeros left alone."""
    exponents = np.floor(np.log10(np.where(values == 0.0, 1.0, np.abs(values))))
    scale = 10.0 ** (2.0 - exponents)
    return np.round(values * scale) / scale
