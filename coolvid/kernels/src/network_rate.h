// What the networks might cost: for each kind of parameter of each module n log2(1 + factor * mean |x|) bits, x being the
// parameters or their differences to predicted ones, whichever makes the module cheaper.
#pragma once
#include <cmath>
#include <vector>

namespace coolvid {

class NetworkRate {
 public:
  static constexpr int KINDS = 2;  // groups KINDS * m .. KINDS * m + KINDS - 1 are those of module m

  // owners [N]: group of each parameter; factors [groups]; predicted [N], or empty.
  NetworkRate(std::vector<int> owners, std::vector<double> factors, std::vector<float> predicted)
      : owners_(std::move(owners)), factors_(std::move(factors)), predicted_(std::move(predicted)), counts_(groups()),
        bits_(groups()), inside_(groups()), slopes_(groups()), is_difference_(groups()) {
    for (int group : owners_) counts_[group] += 1;
  }

  size_t parameters() const { return owners_.size(); }

  // Bits of values [N]; their derivatives times slope are added to slopes [N].
  double add(const float* values, float* slopes, double slope) {
    measure([&](size_t i) { return values[i]; });
    auto bits = bits_, inside = inside_;
    std::fill(is_difference_.begin(), is_difference_.end(), false);
    if (!predicted_.empty()) {
      measure([&](size_t i) { return values[i] - predicted_[i]; });
      for (int m = 0; m < groups(); m += KINDS) {
        double own = 0, other = 0;
        for (int k = m; k < m + KINDS; k++) own += bits[k], other += bits_[k];
        for (int k = m; k < m + KINDS && other < own; k++)
          bits[k] = bits_[k], inside[k] = inside_[k], is_difference_[k] = true;
      }
    }
    double total = 0;
    for (int g = 0; g < groups(); g++) {
      total += bits[g];
      slopes_[g] = static_cast<float>(slope / std::log(2.0) * factors_[g] / inside[g]);
    }
    for (size_t i = 0; i < owners_.size(); i++) {
      int g = owners_[i];
      float x = is_difference_[g] ? values[i] - predicted_[i] : values[i];
      slopes[i] += x > 0 ? slopes_[g] : x < 0 ? -slopes_[g] : 0.f;
    }
    return total;
  }

 private:
  int groups() const { return static_cast<int>(factors_.size()); }

  // Bits of each group, and what the logarithm is taken of.
  template <class F>
  void measure(F&& value) {
    std::fill(inside_.begin(), inside_.end(), 0.0);
    for (size_t i = 0; i < owners_.size(); i++) inside_[owners_[i]] += std::abs(value(i));
    for (int g = 0; g < groups(); g++) {
      inside_[g] = 1 + factors_[g] * inside_[g] / std::max(counts_[g], 1.0);
      bits_[g] = counts_[g] * std::log2(inside_[g]);
    }
  }

  std::vector<int> owners_;
  std::vector<double> factors_;
  std::vector<float> predicted_;
  std::vector<double> counts_, bits_, inside_;
  std::vector<float> slopes_;
  std::vector<char> is_difference_;
};

}  // namespace coolvid
