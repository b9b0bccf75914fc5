"""What is taken in, in numbers. Imports nothing, so that who only asks for a limit loads no image library."""

MAX_BYTES = 16 * 2**20
MAX_PIXELS = 33_000_000
MAX_SIDE = 16_384  # pixels
MAX_STORED_SIDE = 1280  # pixels: larger photos are stored and captioned scaled down
SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".mpo", ".png", ".webp", ".gif", ".heic", ".heif", ".hif"))

# Honest photos have some dozens of segments before their pixels; 16 MiB of PNG in 8 kB chunks are 2,000.
MAX_PIECES = 10_000
# Encoders write a progressive JPEG in about ten scans. Each may take 20 bytes, and is a walk over all pixels.
MAX_SCANS = 50
# Printing profiles, the largest there are, take up to 3 MB.
MAX_PROFILE_BYTES = 4 * 2**20

# What all photos being decoded in this process may take together, in bytes. It holds the hungriest photo
# allowed: a WebP of MAX_PIXELS, of which libwebp keeps two canvases while Pillow makes two more copies.
DECODE_MEMORY = 512 * 2**20
# Photos being decoded at once. It bounds what DECODE_MEMORY does not count: stripped copies of uploads and photos of
# stored size.
MAX_DECODERS = 4

SIZE_LIMIT = f"the limit is {MAX_PIXELS // 10**6} megapixels and {MAX_SIDE:,} pixels a side"
