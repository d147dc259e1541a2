/* Fuzzes master.cf: rows, flags, numbers, overrides and the expansion of arguments. */
#include "conf/conf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct conf_problems p = { 0 };
	struct conf_raw *raw = conf_raw_new("mx.example.org");
	struct conf_services *services;

	conf_raw_read_files(raw, false);
	conf_raw_parse(raw, "main.cf", SLICE_LIT("a = $b\nb = x\n"), &p);
	services = conf_services_parse(raw, "master.cf", slice(data, size), &p);
	for (size_t i = 0; i < services->n; i++) {
		struct conf_service *s = &services->v[i];

		if (!s->name[0] || !s->command[0] || s->maxproc < CONF_MAXPROC_DEFAULT ||
		    s->wakeup < 0)
			abort();
		conf_free(&s->conf);
		s->conf = conf_eval(raw, s->overrides, s->overrides_n, &p);
	}
	conf_services_free(&services);
	conf_raw_free(&raw);
	conf_problems_free(&p);
	return 0;
}
