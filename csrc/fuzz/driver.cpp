// Runs a fuzz target where libFuzzer is missing: mutates a corpus, blindly, for a bounded time.
//
//   fuzz_NAME SECONDS [CORPUS_FILE...]
//
// The same LLVMFuzzerTestOneInput links with clang's -fsanitize=fuzzer instead of this file.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

using Bytes = std::vector<uint8_t>;
constexpr size_t kMaxInput = 1 << 16;

void mutate(Bytes& input, const std::vector<Bytes>& corpus, std::mt19937_64& rng) {
  const size_t at = input.empty() ? 0 : rng() % input.size();
  switch (rng() % 7) {
    case 0:
      if (!input.empty()) input[at] ^= static_cast<uint8_t>(1 << (rng() % 8));
      break;
    case 1:
      if (!input.empty()) input[at] = static_cast<uint8_t>(rng());
      break;
    case 2:
      if (!input.empty()) input[at] = static_cast<uint8_t>(input[at] + rng() % 9 - 4);
      break;
    case 3: input.insert(input.begin() + static_cast<ptrdiff_t>(at), static_cast<uint8_t>(rng())); break;
    case 4:
      if (!input.empty()) input.erase(input.begin() + static_cast<ptrdiff_t>(at));
      break;
    case 5: input.resize(at); break;
    default: {  // splice
      const Bytes& other = corpus[rng() % corpus.size()];
      const size_t from = other.empty() ? 0 : rng() % other.size();
      input.resize(at);
      input.insert(input.end(), other.begin() + static_cast<ptrdiff_t>(from), other.end());
    }
  }
  if (input.size() > kMaxInput) input.resize(kMaxInput);
}

}  // namespace

int main(int argc, char** argv) {
  const double seconds = argc > 1 ? std::atof(argv[1]) : 1;
  std::vector<Bytes> corpus;
  for (int i = 2; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  if (corpus.empty()) corpus.emplace_back();
  for (const Bytes& seed : corpus) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  std::mt19937_64 rng(1);  // the inputs are the same in every run, only their number varies
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  uint64_t runs = 0;
  while (std::chrono::steady_clock::now() < end) {
    Bytes input = corpus[rng() % corpus.size()];
    for (uint64_t k = rng() % 4 + 1; k > 0; --k) mutate(input, corpus, rng);
    LLVMFuzzerTestOneInput(input.data(), input.size());
    ++runs;
  }
  std::printf("%llu inputs from %zu seeds, no failure\n", static_cast<unsigned long long>(runs),
              corpus.size());
  return 0;
}
