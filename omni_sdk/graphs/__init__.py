"""What a bundle's graphs are fed: layouts, sizes, shape profiles and golden inputs. No engine, no media."""
