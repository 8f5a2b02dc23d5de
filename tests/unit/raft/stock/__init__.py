"""What PySyncObj 0.3.17 breaks as it is published, and what the engine built on it keeps: the same scenarios
for both. Message by message, over simulated time."""
