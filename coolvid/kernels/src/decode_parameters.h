// Adaptive binary coding of network parameters (coolvid/bitstream/range_coder.py, adaptive.py, parameter_model.py, parameters.py).
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <span>
#include <vector>

namespace coolvid::integer {

// The range decoder; its state goes in and out, because Python decodes what comes between the parameters.
struct BinaryDecoder {
  const uint8_t* data;
  size_t n, at;
  uint32_t value, range;

  bool ended() const { return at > n + 16; }
  int code(uint32_t chance, int) {
    uint32_t bound = (range >> 16) * (65536u - chance);
    int bit = value >= bound;
    value -= bit ? bound : 0;
    range = bit ? range - bound : bound;
    while (range < 1u << 24) {
      range <<= 8;
      value = value << 8 | (at < n ? data[at] : 0);
      at++;
    }
    return bit;
  }
};

// Adds up what bits cost.
struct BinaryTally {
  const int32_t* costs;
  int64_t cost = 0;

  bool ended() const { return false; }
  int code(uint32_t chance, int bit) {
    cost += costs[(bit ? chance : 65536u - chance) >> 4];
    return bit;
  }
};

struct ParameterBlock {
  int32_t start, rows, columns, taps, feeder, above;
};

enum class ParameterFault { none, end, range };

template <class Coder>
class ParameterCoder {
 public:
  static constexpr int LEVELS = 24, NEAR = 5, STEPS = 10, BELOW_SIZES = 8;
  static constexpr int COMMON_STEPS = 4;
  static constexpr int ANY = 0, COMMON = 2, RISING = COMMON + 2 * COMMON_STEPS, FALL = RISING + 1, ZERO = FALL + 1,
                       NEAR_ZERO = ZERO + 2 * LEVELS, HALVE = NEAR_ZERO + 2 * NEAR * NEAR,
                       NEAR_HALVE = HALVE + STEPS * LEVELS, BELOW = NEAR_HALVE + STEPS * NEAR * NEAR,
                       N_CONTEXTS = BELOW + BELOW_SIZES;

  // predictor: null where the values are no differences.
  ParameterCoder(Coder& coder, const uint16_t* start, const std::vector<ParameterBlock>& blocks, int32_t* values,
                 const int32_t* predictor)
      : coder_(coder), blocks_(blocks), values_(values), predictor_(predictor), ones_(start, start + N_CONTEXTS),
        seen_(N_CONTEXTS, 4), mean_(predictor ? 8 : 32) {}

  ParameterFault run() {
    int last = 1;
    std::vector<Sent> sent;
    for (auto& block : blocks_) {
      const uint32_t together = bits_of(block);
      last = code(together != 0, ANY + last);
      if (!last) continue;
      const int shift = common(together ? std::countr_zero(together) : 0);
      if (shift > MAX_HALVINGS) return ParameterFault::range;
      for (int32_t& v : of(block)) v >>= shift;
      rises_ = rising(block);
      if (rises_) std::adjacent_difference(of(block).begin(), of(block).end(), of(block).begin());
      if (ParameterFault fault = tensor(block); fault != ParameterFault::none) return fault;
      sent.push_back({of(block), shift, rises_});
    }
    for (auto& each : sent)
      if (!restore(each)) return ParameterFault::range;
    return coder_.ended() ? ParameterFault::end : ParameterFault::none;
  }

 private:
  static constexpr int LIMIT = 40, MAX_HALVINGS = 24, NONE = -1, LEAST_RISING = 8;

  struct Sent {
    std::span<int32_t> values;
    int shift;
    bool rises;
  };

  std::span<int32_t> of(const ParameterBlock& block) const {
    return {values_ + block.start, static_cast<size_t>(block.rows) * block.columns};
  }

  // All numbers of a tensor, or-ed: as many zeros at its end as they can all be halved.
  uint32_t bits_of(const ParameterBlock& block) const {
    uint32_t together = 0;
    for (int32_t v : of(block)) together |= static_cast<uint32_t>(v);
    return together;
  }

  // How often all numbers of a tensor can be halved; more than MAX_HALVINGS in damaged streams alone.
  int common(int wanted) {
    const int first = COMMON + (predictor_ ? COMMON_STEPS : 0);
    int n = 0;
    while (n <= MAX_HALVINGS && code(n < wanted, first + std::min(n, COMMON_STEPS - 1))) n++;
    return n;
  }

  // Whether a tensor is sent as rises.
  bool rising(const ParameterBlock& block) {
    if (block.rows != 1 || block.columns < LEAST_RISING || predictor_) return false;
    int64_t rises = 0, sizes = 0, before = 0;
    for (int64_t v : of(block)) {
      rises += std::abs(v - before);
      sizes += std::abs(v);
      before = v;
    }
    return code(2 * rises < sizes, RISING);
  }

  // Numbers from those sent: added up, doubled; false where one is out of range.
  static bool restore(const Sent& sent) {
    constexpr int64_t limit = int64_t{2} << MAX_HALVINGS;
    int64_t value = 0;
    for (int32_t& v : sent.values) {
      value = sent.rises ? value + v : v;
      if (std::abs(value) >= limit || std::abs(value * (int64_t{1} << sent.shift)) >= limit) return false;
      v = static_cast<int32_t>(value * (int64_t{1} << sent.shift));
    }
    return true;
  }

  ParameterFault tensor(const ParameterBlock& block) {
    const std::vector<uint8_t> dead = inputs_that_are_dead(block);
    int64_t i = block.start;
    for (int row = 0; row < block.rows; row++)
      for (int column = 0; column < block.columns; column++, i++) {
        int64_t above = row ? size(i - block.columns) : block.above < 0 ? NONE : size(blocks_[block.above].start + i - block.start);
        int quiet = predictor_ ? !predictor_[i] : dead[column / block.taps];
        if (!value(i, column, above, quiet)) return ParameterFault::range;
        if (coder_.ended()) return ParameterFault::end;
      }
    return ParameterFault::none;
  }

  std::vector<uint8_t> inputs_that_are_dead(const ParameterBlock& block) const {
    std::vector<uint8_t> dead(block.columns / block.taps, 0);
    if (block.feeder < 0) return dead;
    const ParameterBlock& feeder = blocks_[block.feeder];
    for (size_t k = 0; k < dead.size(); k++) {
      const int32_t* first = values_ + feeder.start + k * feeder.columns;
      dead[k] = std::none_of(first, first + feeder.columns, [](int32_t v) { return v != 0; });
    }
    return dead;
  }

  int64_t size(int64_t i) const { return values_[i] < 0 ? -int64_t{values_[i]} : values_[i]; }
  static int near(int64_t size) { return size == NONE ? NEAR - 1 : std::min<int>(std::bit_width(static_cast<uint64_t>(size)), NEAR - 2); }
  int64_t fixed(int64_t size) const { return size == NONE ? mean_ : size << 4; }
  static int level(int64_t energy) {
    int length = std::bit_width(static_cast<uint64_t>(energy));
    int half = length > 1 ? energy >> (length - 2) & 1 : 0;
    return std::clamp(2 * length + half - 1, 0, LEVELS - 1);
  }

  bool value(int64_t i, int column, int64_t above, int quiet) {
    const int64_t left = column ? size(i - 1) : NONE, left2 = column > 1 ? size(i - 2) : NONE;
    const int at = level((2 * fixed(left) + fixed(left2) + fixed(above) + 4 * mean_) >> 3);
    if (!number(values_[i], at, NEAR * near(left) + near(above), quiet)) return false;
    mean_ += ((size(i) << 4) - mean_) >> 4;
    return true;
  }

  bool number(int32_t& value, int level, int near, int quiet) {
    const uint32_t given = value < 0 ? 0u - static_cast<uint32_t>(value) : static_cast<uint32_t>(value);
    const int wanted = std::bit_width(given) - 1;
    if (!code(given != 0, ZERO + quiet * LEVELS + level, NEAR_ZERO + quiet * NEAR * NEAR + near)) {
      value = 0;
      return true;
    }
    const int negative = rises_ ? code(value < 0, FALL) : coder_.code(32768, value < 0);
    int n = 0;
    while (code(n < wanted, HALVE + std::min(n, STEPS - 1) * LEVELS + level, NEAR_HALVE + std::min(n, STEPS - 1) * NEAR * NEAR + near))
      if (++n > MAX_HALVINGS) return false;
    int32_t size = 1;
    for (int k = n - 1; k >= 0; k--) {
      int bit = given >> k & 1;
      bit = k == n - 1 ? code(bit, BELOW + std::min(n, BELOW_SIZES) - 1) : coder_.code(32768, bit);
      size = size << 1 | bit;
    }
    value = negative ? -size : size;
    return true;
  }

  int code(int bit, int a) {
    bit = coder_.code(ones_[a], bit);
    learn(a, bit);
    return bit;
  }
  int code(int bit, int a, int b) {
    bit = coder_.code((ones_[a] + ones_[b]) >> 1, bit);
    learn(a, bit);
    learn(b, bit);
    return bit;
  }
  void learn(int context, int bit) {
    const int64_t chance = ones_[context], rate = 131072 / (2 * seen_[context] + 3);
    const int64_t moved = bit ? chance + ((65536 - chance) * rate >> 16) : chance - (chance * rate >> 16);
    ones_[context] = static_cast<uint16_t>(std::clamp<int64_t>(moved, 64, 65536 - 64));
    seen_[context] = static_cast<uint8_t>(std::min(seen_[context] + 1, LIMIT));
  }

  Coder& coder_;
  const std::vector<ParameterBlock>& blocks_;
  int32_t* values_;
  const int32_t* predictor_;
  std::vector<uint16_t> ones_;
  std::vector<uint8_t> seen_;
  int64_t mean_;
  bool rises_ = false;
};

}  // namespace coolvid::integer
