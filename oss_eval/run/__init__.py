"""What perf and bench share: options, life cycle, progress, resume, manifest."""
