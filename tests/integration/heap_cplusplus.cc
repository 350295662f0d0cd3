/* SPDX-License-Identifier: MIT */
/*
 * tests/integration/heap_cplusplus.cc - the heaps of quire.hpp: containers of the standard library in a
 * region, far beyond the budget.
 */
#include <quire.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#define MUST(x) ((x) ? (void)0 : failed(#x, __LINE__))

[[noreturn]] static void failed(const char *what, int line)
{
	std::fprintf(stderr, "%s:%d: %s (%s)\n", __FILE__, line, what, quire_error_message());
	std::exit(1);
}

static quire_t *open_pager()
{
	quire_options o = {};
	quire_t *q;

	o.size = sizeof o;
	o.memory = 4 << 20;
	MUST(quire_open(&q, &o) == 0);
	return q;
}

static std::size_t used(quire_heap_t *h)
{
	struct quire_heap_info i;

	MUST(quire_heap_info(h, &i) == 0);
	return i.used;
}

static void resources(quire_t *q, quire_heap_t *h)
{
	quire_heap_resource r(h), same(h);
	quire_heap_t *another;

	MUST(quire_heap_create(q, nullptr, &another) == 0);
	quire_heap_resource other(another);
	MUST(r.is_equal(same) && !r.is_equal(other) &&
	     !r.is_equal(*std::pmr::new_delete_resource()));
	{
		std::pmr::vector<std::uint64_t> v(&r);
		std::pmr::map<int, std::pmr::string> m(&r);

		for (std::uint64_t i = 0; i < 2000000; i++)
			v.push_back(i);
		for (int i = 0; i < 30000; i++)
			m.emplace(i, std::string(100, static_cast<char>('a' + i % 26)));
		MUST(std::accumulate(v.begin(), v.end(), std::uint64_t(0)) == 1999999000000);
		for (const auto &[i, s] : m)
			MUST(s.size() == 100 && s[50] == 'a' + i % 26);
		MUST(used(h) > 16u << 20 && used(another) == 0);
		std::pmr::vector<std::uint64_t> moved(std::move(v), &other);
		MUST(used(another) >= 16u << 20 && moved.back() == 1999999);
	}
	MUST(used(h) == 0 && used(another) == 0);
	MUST(quire_heap_destroy(another) == 0);
}

struct alignas(256) wide
{
	char bytes[256];
};

static void allocators(quire_heap_t *h)
{
	{
		std::vector<wide, quire_heap_allocator<wide> > v{ quire_heap_allocator<wide>(h) };
		std::map<long, long, std::less<>,
		         quire_heap_allocator<std::pair<const long, long> > >
			m{ quire_heap_allocator<std::pair<const long, long> >(h) };

		for (int i = 0; i < 1000; i++) {
			v.emplace_back();
			m[i] = i * i;
			MUST(reinterpret_cast<std::uintptr_t>(&v.back()) % 256 == 0);
		}
		MUST(m[999] == 998001 && used(h) > 256000);
		MUST(v.get_allocator() == m.get_allocator());
		try {
			v.get_allocator().allocate(static_cast<std::size_t>(-1) / 8);
			failed("bad_array_new_length", __LINE__);
		} catch (const std::bad_array_new_length &) {
		}
		try {
			v.get_allocator().allocate(static_cast<std::size_t>(1) << 50);
			failed("bad_alloc", __LINE__);
		} catch (const std::bad_alloc &) {
		}
	}
	MUST(used(h) == 0);
}

int main()
{
	quire_t *q = open_pager();
	quire_heap_t *h;

	MUST(quire_heap_create(q, nullptr, &h) == 0);
	resources(q, h);
	allocators(h);
	MUST(quire_heap_destroy(h) == 0 && quire_close(q) == 0);
	std::puts("ok");
}
