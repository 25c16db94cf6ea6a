// A small thread pool: numbered chunks are picked up dynamically, workers sleep between calls.
// A caller that finds the workers busy with another caller's chunks does its own alone, as thread 0 of its own scratch.
// Results never depend on the number of threads, because every chunk writes only what belongs to it and
// partial sums are added in the order of the chunks.
#pragma once
#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace coolvid {

class Pool {
 public:
  // With as many of these threads as the system lets start.
  explicit Pool(int threads) {
    try {
      for (int i = 1; i < threads; i++) workers_.emplace_back([this, i] { work(i); });
    } catch (const std::system_error&) {
    }
  }
  ~Pool() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      stop_ = true;
    }
    wake_.notify_all();
    for (auto& worker : workers_) worker.join();
  }
  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls f(chunk, thread) for chunk 0 .. n - 1, in any order, and returns when all are done.
  template <class F>
  void run(int n, F&& f) {
    std::unique_lock<std::mutex> only_one(call_, std::try_to_lock);
    if (workers_.empty() || n < 2 || !only_one) {  // alone, too little, or the workers serve another caller
      for (int i = 0; i < n; i++) f(i, 0);
      return;
    }
    std::function<void(int, int)> task = std::ref(f);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = &task, count_ = n, next_.store(0), generation_++;
    }
    wake_.notify_all();
    pick(task, n, 0);
    {
      std::lock_guard<std::mutex> lock(mutex_);
      task_ = nullptr;  // nothing is left to pick: a worker that wakes only now is not waited for
    }
    for (int i = 0; i < SPINS && inside_.load() > 0; i++) std::this_thread::yield();
    std::unique_lock<std::mutex> lock(mutex_);
    idle_.wait(lock, [this] { return inside_.load() == 0; });
  }

 private:
  static constexpr int SPINS = 300;  // yields before sleeping: about 100 microseconds
  void pick(std::function<void(int, int)>& task, int n, int thread) {
    for (int i; (i = next_.fetch_add(1)) < n;) task(i, thread);
  }
  void work(int thread) {
    for (uint64_t seen = 0;;) {
      for (int i = 0; i < SPINS && generation_.load(std::memory_order_relaxed) == seen; i++) std::this_thread::yield();
      std::unique_lock<std::mutex> lock(mutex_);
      wake_.wait(lock, [&] { return stop_ || generation_ != seen; });
      if (stop_) return;
      seen = generation_;
      auto* task = task_;
      if (!task) continue;
      int n = count_;
      inside_++;
      lock.unlock();
      pick(*task, n, thread);
      lock.lock();
      if (--inside_ == 0) idle_.notify_one();
    }
  }

  std::vector<std::thread> workers_;
  std::mutex mutex_, call_;
  std::condition_variable wake_, idle_;
  std::function<void(int, int)>* task_ = nullptr;  // while there are chunks to pick
  std::atomic<int> next_{0}, inside_{0};           // inside_: workers that picked up the task
  int count_ = 0;
  std::atomic<uint64_t> generation_{0};
  bool stop_ = false;
};

// The pool that all kernels asking for this many threads share. Never destroyed: a thread may still use it at exit.
inline Pool& shared_pool(int threads) {
  static auto* mutex = new std::mutex;
  static auto* pools = new std::map<int, std::unique_ptr<Pool>>;
  std::lock_guard<std::mutex> lock(*mutex);
  auto& pool = (*pools)[threads];
  if (!pool) pool = std::make_unique<Pool>(threads);
  return *pool;
}

}  // namespace coolvid
