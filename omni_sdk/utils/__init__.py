"""Small helpers of every part; they import nothing of the SDK but its errors."""
