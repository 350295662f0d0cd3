/* SPDX-License-Identifier: MIT */
/*
 * quire.hpp - heaps of quire.h for C++17: a std::pmr::memory_resource and an allocator.
 *
 *     quire_heap_resource resource(heap);               // a quire_heap_t *, which must outlive it
 *     std::pmr::vector<long> v(&resource);
 *     std::vector<long, quire_heap_allocator<long>> w{ quire_heap_allocator<long>(heap) };
 *
 * Header only. No memory: std::bad_alloc. Thread-safe, as the heap is.
 */
#ifndef QUIRE_HPP
#define QUIRE_HPP

#include <quire.h>

#include <cstddef>
#include <memory_resource>
#include <new>
#include <type_traits>

/* => never NULL */
inline void *quire_heap_allocate(quire_heap_t *heap, std::size_t bytes, std::size_t alignment)
{
	void *p = alignment <= alignof(std::max_align_t) && alignment <= bytes ?
	                  quire_heap_malloc(heap, bytes) :
	                  quire_heap_aligned_alloc(heap, alignment, bytes);

	if (!p)
		throw std::bad_alloc();
	return p;
}

class quire_heap_resource : public std::pmr::memory_resource
{
      public:
	explicit quire_heap_resource(quire_heap_t *heap) noexcept : heap_(heap)
	{
	}

	quire_heap_t *heap() const noexcept
	{
		return heap_;
	}

      private:
	void *do_allocate(std::size_t bytes, std::size_t alignment) override
	{
		return quire_heap_allocate(heap_, bytes, alignment);
	}

	void do_deallocate(void *p, std::size_t, std::size_t) override
	{
		quire_heap_free(heap_, p);
	}

	/* Two of one heap can free each other's blocks. */
	bool do_is_equal(const std::pmr::memory_resource &other) const noexcept override
	{
		auto o = dynamic_cast<const quire_heap_resource *>(&other);

		return o && o->heap_ == heap_;
	}

	quire_heap_t *heap_;
};

template <class T> class quire_heap_allocator
{
      public:
	using value_type = T;
	using propagate_on_container_copy_assignment = std::true_type;
	using propagate_on_container_move_assignment = std::true_type;
	using propagate_on_container_swap = std::true_type;

	explicit quire_heap_allocator(quire_heap_t *heap) noexcept : heap_(heap)
	{
	}

	template <class U>
	quire_heap_allocator(const quire_heap_allocator<U> &other) noexcept : heap_(other.heap())
	{
	}

	T *allocate(std::size_t n)
	{
		if (n > static_cast<std::size_t>(-1) / sizeof(T))
			throw std::bad_array_new_length();
		return static_cast<T *>(quire_heap_allocate(heap_, n * sizeof(T), alignof(T)));
	}

	void deallocate(T *p, std::size_t) noexcept
	{
		quire_heap_free(heap_, p);
	}

	quire_heap_t *heap() const noexcept
	{
		return heap_;
	}

      private:
	quire_heap_t *heap_;
};

template <class T, class U>
bool operator==(const quire_heap_allocator<T> &a, const quire_heap_allocator<U> &b) noexcept
{
	return a.heap() == b.heap();
}

template <class T, class U>
bool operator!=(const quire_heap_allocator<T> &a, const quire_heap_allocator<U> &b) noexcept
{
	return !(a == b);
}

#endif
