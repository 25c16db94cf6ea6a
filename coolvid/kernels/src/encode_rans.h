// One sub-stream of latents as coolvid/bitstream/rans.py writes it: rANS with a 48-bit state, 16-bit words and
// 16-bit probabilities.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace coolvid {

// The bytes of n symbols, given in decoding order by where each starts and how frequent it is (in 65536).
inline std::string rans_bytes(const uint32_t* starts, const uint32_t* frequencies, size_t n) {
  constexpr int WORD = 16, FLOOR = 32;
  uint64_t state = 1;
  std::vector<uint16_t> words;
  for (size_t i = n; i-- > 0;) {
    uint64_t frequency = frequencies[i];
    if (state >= frequency << FLOOR) words.push_back(static_cast<uint16_t>(state)), state >>= WORD;
    state = (state / frequency << WORD) + state % frequency + starts[i];
  }
  std::string out;
  int bytes = 0;
  for (uint64_t rest = state; rest; rest >>= 8) bytes++;
  for (int k = bytes; k-- > 0;) out.push_back(static_cast<char>(state >> 8 * k));
  for (size_t k = words.size(); k-- > 0;) out.push_back(static_cast<char>(words[k] >> 8)), out.push_back(static_cast<char>(words[k]));
  return out;
}

}  // namespace coolvid
