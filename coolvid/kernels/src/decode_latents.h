// Latents of one Cool-chic out of their sub-streams: the context model of coolvid/decoding/contexts.py and
// plugins/arm/integer.py with the coder of coolvid/bitstream/latents.py, bit for bit.
//
// Wave t of a grid holds the positions (row r, column c) with c + delay r = t. The last waves are kept as rows of a ring
// in which position r has place r: the context (dy, dx) of a whole wave is then a contiguous row, shifted by dy, of wave
// t + dx + delay dy. The model runs on blocks of two vectors of positions; where all contexts are zero, as in most of an
// inter frame, its answer is known.
#pragma once
#include <stdexcept>

#include "decode_rans.h"
#include "decode_simd.h"

namespace coolvid::integer {

struct ArmModel {
  std::vector<int> dy, dx;
  int n_features, delay;
  std::vector<IntegerLayer> hidden;
  IntegerLayer output, stabiliser;
};

struct DecodedGrid {
  int height, width, log2;
  bool present;
  IntegerLayer map;  // IFCE: coarser grids -> features, empty for none; weights not paired: [input][output]
  int32_t* out;      // latents [height][width], zero at first
};

class LatentDecoder {
 public:
  LatentDecoder(const ArmModel& model, const LaplaceRows& tables, std::vector<Rans>& coders)
      : model_(model), tables_(tables), coders_(coders), n_spatial_(static_cast<int>(model.dy.size())),
        spatial_pairs_((n_spatial_ + 1) / 2), feature_pairs_((model.n_features + 1) / 2) {
    int widest = spatial_pairs_ + feature_pairs_;
    for (auto& layer : model.hidden) widest = std::max(widest, (layer.n_out + 1) / 2);
    for (auto* buffer : {&input_, &hidden_[0], &hidden_[1]}) {
      buffer->values.resize(static_cast<size_t>(widest) * BLOCK);
      for (int p = 0; p < widest; p++) buffer->rows.push_back(buffer->values.data() + p * BLOCK);
    }
    zero_centre_ = zero_row_ = 0;
    evaluate(BLOCK);
    zero_centre_ = centre_[0], zero_row_ = row_[0];
  }

  // Decodes grids (finest first) from the coarsest on; false at the first wave with a fault.
  bool run(std::vector<DecodedGrid>& grids) {
    for (size_t i = grids.size(); i-- > 0;)
      if (grids[i].present) {
        features(grids, i);
        if (!decode(grids[i])) return false;
      }
    return true;
  }

 private:
  static constexpr int BLOCK = 2 * VL, RING = 32, PAD = 4, CONTEXT_BITS = 6, MAX_CENTRE = 16383;
  struct Pairs {
    Buffer<int32_t> values;
    std::vector<const int32_t*> rows;
  };

  // Features of a grid at half its size, as pairs [pair][h * w].
  void features(const std::vector<DecodedGrid>& grids, size_t index) {
    const DecodedGrid& grid = grids[index];
    feature_width_ = (grid.width + 1) / 2;
    int height = (grid.height + 1) / 2;
    plane_ = static_cast<size_t>(feature_width_) * height;
    if (!feature_pairs_ || !grid.map.exists()) {
      has_features_ = false;
      return;
    }
    has_features_ = true;
    features_.resize(plane_ * feature_pairs_);
    std::vector<const DecodedGrid*> coarser;
    for (auto& other : grids)
      if (other.log2 > grid.log2) coarser.push_back(&other);
    Rounding rounding(grid.map.shift, 15);
    int n = grid.map.n_out;
    Buffer<int32_t> line(feature_width_), sums(static_cast<size_t>(n) * (feature_width_ + VL));
    for (int y = 0; y < height; y++) {
      for (int m = 0; m < n; m++) std::fill_n(&sums[m * (feature_width_ + VL)], feature_width_, grid.map.bias[m]);
      for (size_t k = 0; k < coarser.size(); k++) {
        int step = coarser[k]->log2 - grid.log2 - 1;
        const int32_t* from = coarser[k]->out + static_cast<size_t>(y >> step) * coarser[k]->width;
        if (!coarser[k]->present) continue;
        for (int x = 0; x < feature_width_; x++) line[x] = std::clamp(from[x >> step], -32768, 32767);
        for (int m = 0; m < n; m++) {
          int32_t w = grid.map.weights[k * n + m], *sum = &sums[m * (feature_width_ + VL)];
          for (int x = 0; x < feature_width_; x++) sum[x] += w * line[x];
        }
      }
      for (int m = 0; m < n; m++) {
        int32_t *sum = &sums[m * (feature_width_ + VL)], *to = &features_[(m / 2) * plane_ + y * feature_width_];
        for (int x = 0; x < feature_width_; x += VL) store(sum + x, saturate16(rounding(load(sum + x))));
        for (int x = 0; x < feature_width_; x++) to[x] = m % 2 ? paired(to[x], sum[x]) : sum[x] & 0xffff;
      }
    }
  }

  bool decode(DecodedGrid& grid) {
    stride_ = grid.height + 2 * PAD + 2 * BLOCK;
    ring_.resize(static_cast<size_t>(RING) * stride_);
    int last = grid.width + model_.delay * (grid.height - 1);
    for (int t = 0; t < last; t++) {
      int first = t < grid.width ? 0 : (t - grid.width) / model_.delay + 1;
      int end = std::min(grid.height, t / model_.delay + 1);
      int16_t* wave = ring_row(t);
      std::memset(wave, 0, stride_ * sizeof(int16_t));
      for (int r = first; r < end; r += BLOCK)
        block(grid, t, r, std::min(BLOCK, end - r), wave);
      if (fault(first, end - first)) return false;
    }
    return true;
  }

  int16_t* ring_row(int t) { return ring_.data() + (t & (RING - 1)) * stride_; }

  // n positions of wave t from row r on.
  void block(DecodedGrid& grid, int t, int r, int n, int16_t* wave) {
    bool known = gather(t, r, n);
    if (!known) evaluate(n);
    const int S = static_cast<int>(coders_.size()), delay = model_.delay;
    int32_t* to = grid.out + static_cast<size_t>(r) * grid.width + t - delay * r;
    const int step = grid.width - delay;
    for (int i = 0; i < n; i++) {
      int value = coders_[(r + i) & (S - 1)].decode(tables_, known ? zero_centre_ : centre_[i], known ? zero_row_ : row_[i]);
      to[static_cast<ptrdiff_t>(i) * step] = value;
      wave[PAD + r + i] = static_cast<int16_t>(std::clamp(value * (1 << CONTEXT_BITS), -32768, 32767));
    }
  }

  // Contexts of n positions into input_; true when all are zero.
  bool gather(int t, int r, int n) {
    vi any{};
    for (int p = 0; p < spatial_pairs_; p++) {
      const int16_t *low = context(2 * p, t, r), *high = 2 * p + 1 < n_spatial_ ? context(2 * p + 1, t, r) : nullptr;
      for (int i = 0; i < n; i += VL) {
        vi v = high ? paired(low + i, high + i) : paired(widen(low + i), vi{});
        store(input_.values.data() + p * BLOCK + i, v);
        any |= v;
      }
    }
    if (has_features_) {
      for (int i = 0; i < n; i += VL) {
        vi row = lanes() + (r + i), at = (row >> 1) * feature_width_ + ((t - model_.delay * row) >> 1);
        at = row < r + n ? at : vi{};
        for (int p = 0; p < feature_pairs_; p++) {
          vi v = gathered(features_.data() + p * plane_, at);
          store(input_.values.data() + (spatial_pairs_ + p) * BLOCK + i, v);
          any |= row < r + n ? v : vi{};
        }
      }
    } else {
      for (int p = 0; p < feature_pairs_; p++)
        std::memset(input_.values.data() + (spatial_pairs_ + p) * BLOCK, 0, BLOCK * sizeof(int32_t));
    }
    int32_t some = 0;
    for (int i = 0; i < VL; i++) some |= any[i];
    return !some;
  }

  const int16_t* context(int i, int t, int r) {
    return ring_row(t + model_.dx[i] + model_.delay * model_.dy[i]) + PAD + r + model_.dy[i];
  }

  // centre_ and row_ of n positions from input_.
  void evaluate(int n) {
    const int32_t* const* x = input_.rows.data();
    int which = 0;
    for (auto& layer : model_.hidden) {
      int32_t* to = hidden_[which].values.data();
      Narrowing narrowed(layer.shift);
      madd_product(layer, x, n, [&](int m, int i, vi a, vi b) COOLVID_ALWAYS {
        store(to + (m / 2) * BLOCK + i, narrowed(positive(a), positive(b)));
      });
      x = hidden_[which].rows.data();
      which ^= 1;
    }
    auto keep = [](int32_t* to) {
      return [=](int, int i, vi mu, vi scale) COOLVID_ALWAYS { store(to + i, mu), store(to + BLOCK + i, scale); };
    };
    int32_t *main = main_.data(), *side = side_.data();
    madd_product(model_.output, x, n, keep(main));
    if (model_.stabiliser.exists()) madd_product(model_.stabiliser, input_.rows.data(), n, keep(side));
    add_up(n);
    look_up(main, n);
  }

  // main_ and side_, each shifted, into main_.
  void add_up(int n) {
    int32_t *main = main_.data(), *side = side_.data();
    const int a = model_.output.shift, b = model_.stabiliser.exists() ? model_.stabiliser.shift : 1;
    for (int m = 0; m < 2; m++, main += BLOCK, side += BLOCK)
      if (a > 0 && b > 0) {  // accumulators of 2**30 shifted by at least 1: the sum cannot overflow
        Rounding one(a, 30), other(b, 30);
        for (int i = 0; i < n; i += VL) store(main + i, vclamp(one(load(main + i)) + other(load(side + i)), -(1 << 30), 1 << 30));
      } else {
        for (int i = 0; i < n; i++)
          main[i] = static_cast<int32_t>(std::clamp<int64_t>(shifted(main[i], a) + shifted(side[i], b), -(1 << 30), 1 << 30));
      }
  }

  static int64_t shifted(int32_t v, int shift) {
    return shift > 0 ? ((v >> (shift - 1)) + 1) >> 1 : static_cast<int64_t>(v) * (int64_t{1} << -shift);
  }

  static int32_t rounded(int32_t v, int shift) { return (v + (1 << (shift - 1))) >> shift; }

  // coolvid/codec/laplace.py, rows().
  void look_up(const int32_t* mu, int n) {
    constexpr int F = LaplaceRows::FRACTION_BITS;
    const int32_t* raw = mu + BLOCK;
    for (int i = 0; i < n; i++) {
      int32_t fine = rounded(mu[i], 16 - F), centre = rounded(fine, F);
      int32_t above = std::min(std::max(raw[i] + (1 << 16), 0), 10 << 16);
      row_[i] = (rounded(above, 13) << F) + fine - (centre << F) + (1 << (F - 1));
      centre_[i] = std::min(std::max(centre, -MAX_CENTRE), MAX_CENTRE);
    }
  }

  // Whether a coder met a fault in this wave; the first in the order of their first rows counts.
  bool fault(int first, int n) {
    const int S = static_cast<int>(coders_.size());
    for (int i = 0; i < std::min(S, n); i++) {
      Rans& coder = coders_[(first + i) & (S - 1)];
      if (coder.fault() != Fault::none) {
        guilty = &coder;
        return true;
      }
    }
    return false;
  }

 public:
  const Rans* guilty = nullptr;

 private:
  const ArmModel& model_;
  const LaplaceRows& tables_;
  std::vector<Rans>& coders_;
  const int n_spatial_, spatial_pairs_, feature_pairs_;
  Pairs input_, hidden_[2];
  Buffer<int16_t> ring_;
  Buffer<int32_t> features_;
  size_t plane_ = 0, stride_ = 0;
  int feature_width_ = 0;
  Buffer<int32_t> main_{2 * BLOCK}, side_{2 * BLOCK};  // side_ stays zero without a stabiliser
  bool has_features_ = false;
  int32_t centre_[BLOCK], row_[BLOCK];
  int32_t zero_centre_, zero_row_;
};

}  // namespace coolvid::integer
