/*
 * The long answers of POP3: LIST, UIDL, RETR and TOP, written piece by piece. Runs in pop3d-child;
 * the messages are hostile. Invariants: output stays near POP3_WATERMARK; every line ends with CRLF
 * and has its leading dot doubled, so that no message can end or forge an answer.
 */
#include "pop3/private.h"

enum { CHUNK = 16384 };

static void
step_list(struct pop3_engine *e)
{
	uint64_t size;

	while (e->at < e->count && buf_len(&e->out) < POP3_WATERMARK) {
		uint32_t i = e->at++;
		if (e->marks[i] & POP3_MARK_DELETED)
			continue;
		if (e->task == TASK_UIDL) {
			buf_addf(&e->out, "%u ", i + 1);
			e->ops->uidl(e->drop, i, &e->out);
			buf_add_str(&e->out, "\r\n");
		} else {
			if (e->ops->size(e->drop, i, &size) < 0)
				size = 0;
			buf_addf(&e->out, "%u %llu\r\n", i + 1, (unsigned long long)size);
		}
	}
	if (e->at >= e->count) {
		pop3_put(e, ".");
		pop3_end_task(e);
	}
}

/* Writes a piece of the message: bare LF becomes CRLF, a dot that begins a line is doubled. False:
 * TOP has enough. */
static bool
put_piece(struct pop3_engine *e, struct slice s)
{
	while (s.n) {
		if (e->column == 0 && s.p[0] == '.')
			buf_add_byte(&e->out, '.');
		ptrdiff_t lf = slice_find(s, '\n');
		size_t n = lf < 0 ? s.n : (size_t)lf;
		if (n) {
			buf_add(&e->out, slice_sub(s, 0, n));
			e->last = s.p[n - 1];
			e->column = n > 1 || e->column ? 2 : 1;
		}
		if (lf < 0)
			return true;
		bool empty = e->column == 0 || (e->column == 1 && e->last == '\r');
		if (e->last != '\r')
			buf_add_byte(&e->out, '\r');
		buf_add_byte(&e->out, '\n');
		e->last = '\n';
		e->column = 0;
		s = slice_sub(s, n + 1, SIZE_MAX);
		if (!e->top)
			continue;
		if (e->in_body)
			e->lines--;
		e->in_body |= empty;
		if (e->in_body && e->lines == 0)
			return false;
	}
	return true;
}

static void
end_message(struct pop3_engine *e)
{
	if (e->last == '\r')
		buf_add_byte(&e->out, '\n');
	else if (e->last != '\n')
		buf_add_str(&e->out, "\r\n");
	pop3_put(e, ".");
	pop3_end_task(e);
}

static void
step_message(struct pop3_engine *e)
{
	unsigned char chunk[CHUNK];

	while (buf_len(&e->out) < POP3_WATERMARK) {
		ptrdiff_t n = e->ops->read(e->content, e->offset, chunk, sizeof(chunk));
		if (n <
		    0) { /* the answer cannot be taken back: the client must not take it as whole */
			pop3_end_task(e);
			e->closed = true;
			return;
		}
		e->offset += (uint64_t)n;
		if (n == 0 || !put_piece(e, slice(chunk, (size_t)n))) {
			end_message(e);
			return;
		}
	}
}

void
pop3_step(struct pop3_engine *e)
{
	if (e->task == TASK_MESSAGE)
		step_message(e);
	else if (e->task != TASK_NONE)
		step_list(e);
}
