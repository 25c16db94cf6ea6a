// One sub-stream of latents, as coolvid/bitstream/rans.py defines it: rANS with a 48-bit state, 16-bit words and
// 16-bit probabilities. Reads nothing beyond its bytes; garbage gives an error or garbage latents.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

namespace coolvid::integer {

enum class Fault { none, range, escape, end };

// Rows of the Laplace tables: starts [row][64], and how many low bits are sent raw. Row: scale index, then fraction of mu.
struct LaplaceRows {
  static constexpr int SCALES = 81, FRACTION_BITS = 5, COUNT = SCALES << FRACTION_BITS;
  const uint16_t* starts;
  const int32_t* shifts;
  int rows;
};

class Rans {
 public:
  static constexpr int SYMBOLS = 64, ESCAPE = 63, REACH = 31, MAX_LATENT = 32767, MAX_LENGTH = 18, HEAD = 6;

  Rans(const uint8_t* data, size_t n) {
    size_t head = n <= HEAD ? n : HEAD - n % 2;
    for (size_t i = 0; i < head; i++) state_ = state_ << 8 | data[i];
    next_ = data + head, end_ = data + n;
  }

  int decode(const LaplaceRows& tables, int centre, int row) {
    const uint16_t* starts = tables.starts + row * SYMBOLS;
    uint32_t slot = state_ & 0xffff;
    int symbol = REACH;
    if (slot - starts[REACH] >= static_cast<uint32_t>(starts[REACH + 1] - starts[REACH])) symbol = find(starts, slot);
    uint32_t stop = symbol == ESCAPE ? 65536u : starts[symbol + 1];
    state_ = (stop - starts[symbol]) * (state_ >> 16) + slot - starts[symbol];
    refill();
    int shift = tables.shifts[row];
    return shift || symbol == ESCAPE ? special(centre, symbol, shift) : centre + symbol - REACH;
  }

  bool is_finished() const { return state_ == 1 && next_ == end_; }
  Fault fault() const { return fault_; }
  int64_t culprit() const { return culprit_; }

 private:
  // The last symbol that starts at or before the slot.
  static int find(const uint16_t* starts, uint32_t slot) {
    uint16_t count = 0, at = static_cast<uint16_t>(slot);
    for (int i = 0; i < SYMBOLS; i++) count += starts[i] <= at;
    return count - 1;
  }

  void refill() {
    if (state_ >> 32 || next_ == end_) return;
    state_ = state_ << 16 | static_cast<uint64_t>(next_[0] << 8 | next_[1]);
    next_ += 2;
  }

  int bits(int n) {
    int drop = 16 - n;
    uint32_t slot = state_ & 0xffff, value = slot >> drop;
    state_ = ((state_ >> 16) << drop) + slot - (value << drop);
    refill();
    return static_cast<int>(value);
  }

  int special(int centre, int symbol, int shift) {
    int64_t cell = symbol == ESCAPE ? escape() : symbol - REACH;
    if (fault_ != Fault::none) return 0;
    int64_t value = centre + (cell << shift) + bits(shift);
    if (value < -MAX_LATENT || value > MAX_LATENT) {
      fault_ = Fault::range, culprit_ = value;
      return 0;
    }
    return static_cast<int>(value);
  }

  int64_t escape() {
    int n = 0;
    while (!bits(1))
      if (++n > MAX_LENGTH) {
        if (fault_ == Fault::none) fault_ = Fault::escape;
        return 0;
      }
    int64_t rest = static_cast<int64_t>(bits(std::max(0, n - 8))) << std::min(n, 8);
    int64_t code = (int64_t{1} << n) + rest + bits(std::min(n, 8)) - 1;
    return code & 1 ? (code + 1) / 2 : -(code / 2);
  }

  uint64_t state_ = 0;
  const uint8_t *next_, *end_;
  Fault fault_ = Fault::none;
  int64_t culprit_ = 0;
};

}  // namespace coolvid::integer
