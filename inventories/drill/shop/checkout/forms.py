"""What the customer types to pay."""

from django import forms


class CardForm(forms.Form):
    """A card. Its number goes to the gateway at once and is kept nowhere here."""

    number = forms.CharField(label="Card number", min_length=12, max_length=23, strip=True)
    month = forms.IntegerField(label="Expires, month", min_value=1, max_value=12)
    year = forms.IntegerField(label="Expires, year", min_value=2025, max_value=2099)
    code = forms.RegexField(label="Security code", regex=r"^[0-9]{3,4}$")

    def clean_number(self) -> str:
        """Return the digits alone."""
        digits = self.cleaned_data["number"].replace(" ", "").replace("-", "")
        if not digits.isdigit():
            raise forms.ValidationError("A card number has only digits.")
        return digits
