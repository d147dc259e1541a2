/*
 * The conversation with PAM, in a child of the PAM helper (root). Hostile: user and password; a
 * password with NUL is refused here, because PAM takes C strings. Modules' messages are dropped:
 * only yes or no leaves this process.
 */
#include "helpers/pam/check.h"

#include <security/pam_appl.h>
#include <stdlib.h>

struct answers {
	const char *password;
};

static int
converse(int n, const struct pam_message **messages, struct pam_response **responses, void *ctx)
{
	const struct answers *a = ctx;
	struct pam_response *r;

	if (n <= 0 || n > PAM_MAX_NUM_MSG)
		return PAM_CONV_ERR;
	r = xcalloc((unsigned long)n, sizeof(*r));
	for (int i = 0; i < n; i++) {
		switch (messages[i]->msg_style) {
		case PAM_PROMPT_ECHO_OFF:
			r[i].resp = xstrdup(a->password);
			break;
		case PAM_ERROR_MSG:
		case PAM_TEXT_INFO:
			break;
		default: /* a second factor, a new password: nobody is there to give it */
			while (i-- > 0)
				free(r[i].resp);
			free(r);
			return PAM_CONV_ERR;
		}
	}
	*responses = r;
	return PAM_SUCCESS;
}

/* auth delays failures itself, longer each time. */
static void
no_delay(int status, unsigned usec, void *ctx)
{
	(void)status;
	(void)usec;
	(void)ctx;
}

int
pam_ask(const char *service, const char *user, struct slice password, const char *client)
{
	struct answers a = { NULL };
	struct pam_conv conv = { converse, &a };
	pam_handle_t *pam = NULL;
	char *text;
	int rc;

	if (slice_cstr(password, &text) < 0)
		return 1;
	a.password = text;
	rc = pam_start(service, user, &conv, &pam);
	if (rc != PAM_SUCCESS)
		return 2;
	pam_set_item(pam, PAM_RHOST, client);
	pam_set_item(pam, PAM_TTY, "bulkhead");
	pam_set_item(pam, PAM_FAIL_DELAY, (void *)(uintptr_t)no_delay);
	rc = pam_authenticate(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	if (rc == PAM_SUCCESS)
		rc = pam_acct_mgmt(pam, PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK);
	pam_end(pam, rc);
	explicit_bzero(text, password.n);
	free(text);
	switch (rc) {
	case PAM_SUCCESS:
		return 0;
	case PAM_AUTH_ERR:
	case PAM_USER_UNKNOWN:
	case PAM_MAXTRIES:
	case PAM_PERM_DENIED:
	case PAM_ACCT_EXPIRED:
	case PAM_NEW_AUTHTOK_REQD:
	case PAM_CRED_INSUFFICIENT:
	case PAM_AUTHTOK_EXPIRED:
		return 1;
	default:
		return 2;
	}
}
