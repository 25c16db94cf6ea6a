// Memory of planes and pictures, kept for the next frame: fresh pages of the system cost more time than filling them.
#pragma once
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <new>
#include <utility>

namespace coolvid::integer {

class SpareMemory {
 public:
  static constexpr size_t ALIGNMENT = 64, MOST = size_t{1} << 26;  // MOST: bytes that are kept

  static SpareMemory& shared() {
    static SpareMemory* spare = new SpareMemory;  // never destroyed: arrays may outlive everything else
    return *spare;
  }

  // At least `bytes`, with anything in them. Throws std::bad_alloc.
  void* take(size_t bytes) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      for (size_t i = 0; i < blocks_.size(); i++)
        if (blocks_[i].second == bytes) {
          void* found = blocks_[i].first;
          blocks_.erase(blocks_.begin() + static_cast<ptrdiff_t>(i));
          kept_ -= bytes;
          return found;
        }
    }
    void* fresh = std::aligned_alloc(ALIGNMENT, rounded_up(bytes));
    if (!fresh) throw std::bad_alloc();
    return fresh;
  }

  // What take(bytes) gave. The blocks that wait longest are freed where too much is kept.
  void give(void* block, size_t bytes) noexcept {
    std::lock_guard<std::mutex> lock(mutex_);
    try {
      blocks_.emplace_back(block, bytes);
    } catch (...) {
      std::free(block);
      return;
    }
    kept_ += bytes;
    while (kept_ > MOST) {
      kept_ -= blocks_.front().second;
      std::free(blocks_.front().first);
      blocks_.pop_front();
    }
  }

 private:
  static size_t rounded_up(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

  std::mutex mutex_;
  std::deque<std::pair<void*, size_t>> blocks_;
  size_t kept_ = 0;
};

// An array in such memory, with room to read and write 256 bytes beyond its end; nothing is cleared.
template <class T>
class Plain {
 public:
  Plain() = default;
  explicit Plain(size_t n) { resize(n); }
  Plain(Plain&& other) noexcept { std::swap(data_, other.data_), std::swap(bytes_, other.bytes_); }
  Plain& operator=(Plain&& other) noexcept { return std::swap(data_, other.data_), std::swap(bytes_, other.bytes_), *this; }
  ~Plain() {
    if (data_) SpareMemory::shared().give(data_, bytes_);
  }
  void resize(size_t n) {
    Plain other;
    other.bytes_ = n * sizeof(T) + 256;
    other.data_ = static_cast<T*>(SpareMemory::shared().take(other.bytes_));
    *this = std::move(other);
  }
  T* data() { return data_; }
  const T* data() const { return data_; }
  T& operator[](size_t i) { return data_[i]; }

 private:
  T* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace coolvid::integer
