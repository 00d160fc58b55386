// Placeholder so that the static library is never empty; real kernels live beside it.
